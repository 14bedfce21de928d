/**
 * An independent, slow and simple reading of qcow2 images, and a model of a guest's disk, to judge
 * the engine by. Shares no code with it.
 */
@org.jspecify.annotations.NullMarked
package io.qnbd.image.oracle;
