"""What a new project begins with: settings, the graph, a worked example; text and bytes, nothing is written here."""
