/**
 * The virtual disk of a qcow2 image: reading through the tables and the backing chain, writing with
 * copy on write, trimming, and the order in which a commit makes it all durable.
 */
package io.qnbd.image.disk;
