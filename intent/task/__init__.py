"""Define the meanings of messages and the prompt of a model: schema, catalog, prompt and text. Pure."""
