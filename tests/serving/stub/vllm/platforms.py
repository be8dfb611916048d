import os


class Platform:
    device_type = os.environ.get("VLLM_PLAY_DEVICE", "cpu")

    def get_punica_wrapper(self):
        if "VLLM_PLAY_WITHOUT_LORA" in os.environ:
            raise NotImplementedError
        return "of the device"


current_platform = Platform()
