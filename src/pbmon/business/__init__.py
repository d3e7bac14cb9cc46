"""What the application says of its business: revenue and feature usage."""
