/* Runs the [region] layer of pjreddie's Darknet in training mode and writes what it computes; see README.md.
 *
 * usage: darknet_region NET.cfg SEEN INPUT TRUTH OUTPUT DELTA   (files of float32; prints the cost)
 * The network of NET.cfg is the [region] layer alone, so that its input is the input of the network.
 */
#include <darknet.h>

static void transfer(const char *path, const char *mode, float *values, size_t count) {
  FILE *file = fopen(path, mode);
  if (!file) exit(2);
  size_t done = mode[0] == 'r' ? fread(values, sizeof(float), count, file) : fwrite(values, sizeof(float), count, file);
  fclose(file);
  if (done != count) exit(3);
}

int main(int argc, char **argv) {
  if (argc != 7) return 1;
  network *net = parse_network_cfg(argv[1]);
  layer l = net->layers[0];
  size_t count = (size_t)l.batch * l.outputs;
  net->input = calloc(count, sizeof(float));
  net->truth = calloc((size_t)l.batch * l.truths, sizeof(float));
  net->train = 1;
  *net->seen = strtoull(argv[2], 0, 10);
  transfer(argv[3], "rb", net->input, count);
  transfer(argv[4], "rb", net->truth, (size_t)l.batch * l.truths);
  forward_network(net);
  transfer(argv[5], "wb", l.output, count);
  transfer(argv[6], "wb", l.delta, count);
  printf("cost %.9g\n", *l.cost);
  return 0;
}
