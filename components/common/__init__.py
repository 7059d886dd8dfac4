"""What two or more steps need; imports no kfp."""
