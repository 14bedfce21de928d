/** What a user installs: the container image and the packages, built by their commands and used. */
@org.jspecify.annotations.NullMarked
package io.qnbd.it.container;
