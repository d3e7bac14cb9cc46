"""What collector-config/, compose.yaml and grafana/provisioning/ do, on the real programs."""
