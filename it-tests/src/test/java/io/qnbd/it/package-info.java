/** Black-box tests: the launcher and real clients, and the rules that the sources must keep. */
@NullMarked
package io.qnbd.it;

import org.jspecify.annotations.NullMarked;
