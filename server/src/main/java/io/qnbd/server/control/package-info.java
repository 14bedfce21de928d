/**
 * The control socket: what a person may ask of a server that runs, as lines of JSON over a Unix
 * socket. {@code docs/control.md} has the protocol.
 */
package io.qnbd.server.control;
