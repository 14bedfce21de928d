/** Seeded randomness for tests: one seed is one run, and a failure names it. */
@org.jspecify.annotations.NullMarked
package io.qnbd.image.random;
