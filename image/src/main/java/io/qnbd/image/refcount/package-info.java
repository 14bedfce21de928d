/**
 * Reference counts of host clusters, and who may have which cluster: counts in blocks, decrements
 * in a batch, clusters reserved ahead in a pool.
 *
 * <p>Everything rests on one asymmetry: a count that is too high wastes a cluster, a count that is
 * too low loses one. So increments are written before anything can refer to the cluster, decrements
 * long after nothing does.
 */
package io.qnbd.image.refcount;
