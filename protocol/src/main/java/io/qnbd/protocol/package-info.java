/** NBD messages as values. */
package io.qnbd.protocol;
