/** The manual's commands, taken from its pages and run. */
@org.jspecify.annotations.NullMarked
package io.qnbd.it.docs;
