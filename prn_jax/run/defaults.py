"""Settings of an evaluation that nobody chose."""

CONF, NMS = 0.001, 0.45
MOST_DETECTIONS = 4096  # per image, beyond what any image needs: COCO takes 100 of each class
