"""The container images of the steps; no other file names one."""

# Every step on a CPU, training included.
CPU = "flowers-cpu:latest"
# Training on an NVIDIA GPU.
GPU = "flowers-gpu:latest"
# Deployment: the packages of CPU, and the client of Vertex AI.
DEPLOY = "flowers-deploy:latest"
# A model over HTTP.
SERVE = "flowers-serve:latest"
# By the target of containers/Dockerfile that makes it.
IMAGES = {"cpu": CPU, "gpu": GPU, "deploy": DEPLOY, "serve": SERVE}
