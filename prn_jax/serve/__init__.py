"""A model behind HTTP: photos in, boxes out."""
