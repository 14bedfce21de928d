/** The raw format: the virtual disk's bytes are the file's. */
package io.qnbd.image.raw;
