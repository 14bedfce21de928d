/** An NBD client written from the protocol's text alone, so that the server never tests itself. */
@NullMarked
package io.qnbd.it.client;

import org.jspecify.annotations.NullMarked;
