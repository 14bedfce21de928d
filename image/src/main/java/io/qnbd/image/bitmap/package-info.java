/** Persistent dirty bitmaps: which there are, and what they say. */
package io.qnbd.image.bitmap;
