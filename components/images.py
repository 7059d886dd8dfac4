"""The container images of the steps; no other file names one."""

# Every step on a CPU, training included.
CPU = "flowers-cpu:latest"
# Training on an NVIDIA GPU.
GPU = "flowers-gpu:latest"
# Training on TPUs with JAX.
TPU = "flowers-tpu:latest"
# Training on TPUs with TensorFlow.
TPU_TENSORFLOW = "flowers-tpu-tf:latest"
# Deployment: the packages of CPU, and the client of Vertex AI.
DEPLOY = "flowers-deploy:latest"
# A model over HTTP.
SERVE = "flowers-serve:latest"
# By the target of containers/Dockerfile that makes it.
IMAGES = {
    "cpu": CPU,
    "gpu": GPU,
    "tpu": TPU,
    "tpu-tf": TPU_TENSORFLOW,
    "deploy": DEPLOY,
    "serve": SERVE,
}
