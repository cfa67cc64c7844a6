"""Where published figures stand, spelled out."""

IMAGENET_PAGE = "pjreddie.com/darknet/imagenet (ImageNet validation)"
TINY_DARKNET_PAGE = "pjreddie.com/darknet/tiny-darknet (ImageNet validation)"
YOLO_PAGE = "pjreddie.com/darknet/yolo (COCO test-dev)"
ALEXEYAB_README = "README of AlexeyAB/darknet (COCO)"
YOLOV3_TABLE_2 = "YOLOv3 paper, table 2"
PRN_TABLE_2 = "PRN paper, table 2 (COCO)"
PRN_TABLE_3 = "PRN paper, table 3 (COCO); README of WongKinYiu/PartialResidualNetworks"
PRN_RESULTS = "Results.md of WongKinYiu/PartialResidualNetworks (COCO test-dev)"
PRN_README = "README of WongKinYiu/PartialResidualNetworks (COCO test-dev)"
CSP_README = "README of WongKinYiu/CrossStagePartialNetworks (in Darknet; ImageNet)"
SPURSLIPU_REPOSITORY = "SpursLipu/YOLOv3v4-ModelCompression-MultidatasetTraining-Multibackbone"
# Its operations and sizes are counted in another way and left out.
SPURSLIPU_README = (
  "README of SpursLipu/YOLOv3v4-ModelCompression-MultidatasetTraining-Multibackbone (its own training; COCO)"
)
