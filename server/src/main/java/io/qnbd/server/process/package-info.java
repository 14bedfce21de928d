/**
 * A server as a process: what it inherits from whoever starts it, who is told how it is, and the
 * command that it serves.
 */
package io.qnbd.server.process;
