/** Makes new images: empty ones, and ones whose metadata is complete from the start. */
package io.qnbd.image.create;
