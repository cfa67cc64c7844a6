"""Annotated images of any source in the folders and files of COCO, VOC, YOLO and Darknet: `prn data convert`."""
