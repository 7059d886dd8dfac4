"""Secrets where people keep them, to be searched for where they do not belong."""

SECRET = "planted-7c1e"
PLANTED = {
    name: f"{SECRET}-{number}"
    for number, name in enumerate(
        ("GOOGLE_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "KFP_TOKEN", "PASSWORD", "NETRC")
    )
}
