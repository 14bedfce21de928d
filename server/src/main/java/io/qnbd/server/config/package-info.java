/**
 * What operators write, as values: sizes, addresses and choices, an export's settings, and the
 * configuration file that holds them all.
 */
package io.qnbd.server.config;
