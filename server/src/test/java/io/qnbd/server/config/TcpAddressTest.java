package io.qnbd.server.config;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.server.net.ListenAddress;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class TcpAddressTest {

  @ParameterizedTest
  @CsvSource({
    "127.0.0.1:10809, 127.0.0.1, 10809",
    "0.0.0.0:0, 0.0.0.0, 0",
    "localhost:65535, localhost, 65535",
    "disks.example.org, disks.example.org, 10809",
    "[::1]:10810, ::1, 10810",
    "[::], ::, 10809",
    ":10809, '', 10809"
  })
  void readsHostAndPort(String text, String host, int port) {
    assertEquals(new ListenAddress.Tcp(host, port), TcpAddress.parse(text));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        ":",
        ":x",
        "[]:1",
        "[::1",
        "::1",
        "::1:10809",
        "host:",
        "host:x",
        "host:-1",
        "host:65536",
        "host:123456",
        "[::1]10809",
        "a:1:2"
      })
  void refusesWithASentence(String text) {
    IllegalArgumentException refused =
        assertThrows(IllegalArgumentException.class, () -> TcpAddress.parse(text));
    assertFalse(String.valueOf(refused.getMessage()).isBlank());
  }

  @Test
  void saysHowToWriteAnIpv6Address() {
    assertTrue(
        String.valueOf(
                assertThrows(IllegalArgumentException.class, () -> TcpAddress.parse("fe80::1:1"))
                    .getMessage())
            .contains("[::1]:10809"));
  }
}
