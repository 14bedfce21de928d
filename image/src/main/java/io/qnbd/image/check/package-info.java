/**
 * Counts the references in an image: to describe it, to check that its metadata adds up, and to
 * make its refcounts what the references say.
 */
package io.qnbd.image.check;
