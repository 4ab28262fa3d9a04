{
  "variables": { "sanitize%": 0 },
  "targets": [
    {
      "target_name": "passel",
      "sources": [ "<!@(ls src/native/*.c)" ],
      "cflags_c": [ "-std=c11", "-O3", "-Wall", "-Wextra", "-Wconversion", "-Werror=implicit-function-declaration", "-fvisibility=hidden" ],
      "defines": [ "NAPI_VERSION=9", "_GNU_SOURCE" ],
      "conditions": [
        [ "sanitize==1", {
          "cflags_c": [ "-O1", "-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined" ],
          "ldflags": [ "-fsanitize=address,undefined" ]
        } ]
      ]
    },
    {
      "target_name": "namespace-agent",
      "type": "executable",
      "sources": [ "<!@(ls src/native/agent/*.c)", "src/native/netif-calls.c" ],
      "cflags_c": [ "-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion" ],
      "defines": [ "_GNU_SOURCE" ]
    },
    {
      "target_name": "remover",
      "type": "executable",
      "sources": [ "src/native/remover/remover.c" ],
      "cflags_c": [ "-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion" ],
      "defines": [ "_GNU_SOURCE" ]
    },
    {
      "target_name": "services-agent",
      "type": "executable",
      "sources": [ "src/native/services/services.c" ],
      "cflags_c": [ "-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion" ],
      "defines": [ "_GNU_SOURCE" ]
    },
    {
      "target_name": "front",
      "type": "executable",
      "sources": [ "src/native/front/front.c", "src/native/front/node.c" ],
      "cflags_c": [ "-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion" ],
      "defines": [ "_GNU_SOURCE", "NODE_EXECUTABLE=\"<!(node -p process.execPath || echo /usr/bin/node)\"" ]
    },
    {
      "target_name": "launcher",
      "type": "executable",
      "sources": [
        "src/native/front/launcher.c", "src/native/front/detach.c", "src/native/front/node.c", "src/native/front/plan.c", "src/native/front/ring.c"
      ],
      "cflags_c": [ "-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion" ],
      "defines": [ "_GNU_SOURCE", "NODE_EXECUTABLE=\"<!(node -p process.execPath || echo /usr/bin/node)\"" ]
    }
  ]
}
