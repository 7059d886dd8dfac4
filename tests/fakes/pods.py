"""The pod that Kubeflow Pipelines makes of a step, as far as the package decides it.

It follows `applyStaticK8sConfig` and `applySecurityContextToExecutorTemplate` of
backend/src/v2/compiler/argocompiler, and the resources of backend/src/v2/driver, of
github.com/kubeflow/pipelines. The containers that bring the inputs and the launcher, the same for
every package, are left out.
"""

# What every pod has for its outputs, from container.go.
_SCRATCH = {
    "/gcs": "gcs-scratch",
    "/s3": "s3-scratch",
    "/minio": "minio-scratch",
    "/.local": "dot-local-scratch",
    "/.cache": "dot-cache-scratch",
    "/.config": "dot-config-scratch",
    "/kfp-launcher": "kfp-launcher",
}


def make_pod(documents, task, service_account="pipeline-runner"):
    """The manifest of a task's pod."""
    spec, platform = documents
    container = spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
    config = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{task}"]
    mounts = _SCRATCH | {one["mountPath"]: one["volumeName"] for one in config["emptyDirMounts"]}
    identity = config["securityContext"]
    pod = {
        "serviceAccountName": service_account,
        "restartPolicy": "Never",
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "main",
                "image": container["image"],
                "command": container["command"],
                "args": container["args"],
                "resources": resources(container.get("resources", {})),
                "volumeMounts": [
                    {"name": name, "mountPath": path} for path, name in mounts.items()
                ],
                "securityContext": {
                    "runAsUser": int(identity["runAsUser"]),
                    "runAsGroup": int(identity["runAsGroup"]),
                    "runAsNonRoot": identity["runAsNonRoot"],
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }
        ],
        "volumes": [{"name": name, "emptyDir": {}} for name in mounts.values()],
    }
    if "fieldPathAsEnv" in config:
        pod["containers"][0]["env"] = [
            {"name": one["name"], "valueFrom": {"fieldRef": {"fieldPath": one["fieldPath"]}}}
            for one in config["fieldPathAsEnv"]
        ]
    if "nodeSelector" in config:
        pod["nodeSelector"] = config["nodeSelector"]["labels"]
    if "tolerations" in config:
        pod["tolerations"] = config["tolerations"]
    if "imagePullSecret" in config:
        pod["imagePullSecrets"] = [{"name": one["secretName"]} for one in config["imagePullSecret"]]
    if "activeDeadlineSeconds" in config:
        pod["activeDeadlineSeconds"] = int(config["activeDeadlineSeconds"])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": task, "labels": config.get("podMetadata", {}).get("labels", {})},
        "spec": pod,
    }


def resources(given):
    """Requests and limits; of an accelerator the limit, which the request follows."""
    found: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for key, name in (("Cpu", "cpu"), ("Memory", "memory")):
        for kind, place in (("Request", "requests"), ("Limit", "limits")):
            if f"resource{key}{kind}" in given:
                found[place][name] = given[f"resource{key}{kind}"]
    if "accelerator" in given:
        one = given["accelerator"]
        found["limits"][one["resourceType"]] = one["resourceCount"]
    return found
