/** The handshake as a state machine: an option comes in, answers and the next state go out. */
package io.qnbd.protocol.handshake;
