{
  "targets": [
    {
      "target_name": "peft_train",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["build/Release/peft_train.node"],
          "action": ["node", "scripts/build-native.mjs"]
        }
      ]
    }
  ]
}
