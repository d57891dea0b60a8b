"""What a person asks for: the schema of recipes, and those that ship."""
