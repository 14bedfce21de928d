/** Sockets, connections and their requests in flight: from the listening port to the image call. */
package io.qnbd.server.net;
