"""Define what a message can mean and how a model is asked: schema, catalog, prompt, and labelled data. Pure."""
