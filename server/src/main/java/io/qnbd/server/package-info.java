/** The command line: what the user typed becomes options, images, exports and one answer. */
package io.qnbd.server;
