/** The log: one line for each event, on standard error. */
package io.qnbd.server.log;
