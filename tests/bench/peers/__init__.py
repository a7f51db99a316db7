"""What the gateway is measured against, each as a good engineer would write it in an hour."""
