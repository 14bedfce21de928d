/** Compression: the bytes of a cluster in, the bytes of a cluster out. */
package io.qnbd.image.codec;
