/**
 * Disks that an NBD server has: a small pipelined client. The server is not trusted: what it says
 * is checked before anything is allocated or believed for it.
 */
package io.qnbd.server.remote;
