"""Networks at work: photos in, boxes or classes out, saved and scored."""
