/** Where a guest cluster's bytes are: the L1 and L2 tables and their cache. */
package io.qnbd.image.mapping;
