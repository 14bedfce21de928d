/** Draws what an image file's clusters are used for as an SVG picture. Knows no files. */
package io.qnbd.server.picture;
