/** Images under the names that clients ask for, and what all connections share to serve them. */
package io.qnbd.server.export;
