/** The few system calls that a server needs and Java does not offer. */
package io.qnbd.server.os;
