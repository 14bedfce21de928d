/**
 * The NBD protocol case by case, against a real server over raw sockets: whatever the protocol's
 * text allows passes, and nothing else. It shares no code with the server's codec or the other
 * tests' client, so a misreading of the text has to be made twice to go unnoticed.
 */
@NullMarked
package io.qnbd.it.conformance;

import org.jspecify.annotations.NullMarked;
