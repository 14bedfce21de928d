package io.qnbd.image.disk;

import io.qnbd.image.io.LatchedStorage;

/**
 * The external data file of an image (qcow2 specification, "Header", incompatible feature 2): guest
 * clusters stand in it where they stand on the disk.
 *
 * @param storage belongs to the image
 * @param raw whether it is, by itself, always the disk's raw image, so that zeroes are written to
 *     it and not only into the tables
 */
record DataFile(LatchedStorage storage, boolean raw) {}
