/**
 * TLS for connections: credentials from files that may change, a handler for each connection, and
 * who the client turned out to be.
 */
package io.qnbd.server.tls;
