"""What goes on behind the application: its events are brought into the store."""
