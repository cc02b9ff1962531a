/* infer_tiny.c - the tiny random models of the model tests, for this binary. */
#include "model/tiny_model.c"
