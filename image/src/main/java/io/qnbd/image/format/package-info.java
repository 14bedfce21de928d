/**
 * The qcow2 format as values: what stands where in the header and the tables, and what is allowed
 * there. Bytes in, values out; no I/O.
 */
package io.qnbd.image.format;
