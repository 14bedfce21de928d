/**
 * The command line as manual pages and as completion for shells, both read from picocli's model.
 */
package io.qnbd.server.manual;
